"""The checks that every case is held to, on the CPU reference: their ids begin with K."""
