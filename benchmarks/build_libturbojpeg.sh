#!/bin/sh
# Build the shared TurboJPEG library of libjpeg-turbo 3 for region decoding, where the distribution ships 2.x or none.
#
#   benchmarks/build_libturbojpeg.sh [PREFIX]        default: ~/.cache/chipperf/libturbojpeg
#   export PERF_LIBTURBOJPEG=PREFIX/libturbojpeg.so
#
# Needs cmake, a C compiler and nasm. LIBJPEG_TURBO_TARBALL names an already downloaded source archive.
set -eu

version=3.1.3
sha256=3a13a5ba767dc8264bc40b185e41368a80d5d5f945944d1dbaa4b2fb0099f4e5
prefix=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/chipperf/libturbojpeg}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tarball=${LIBJPEG_TURBO_TARBALL:-}
if [ -z "$tarball" ]; then
    tarball=$work/source.tar.gz
    # Debian keeps the upstream archive unchanged, for machines that reach a Debian mirror only.
    for url in \
        "https://github.com/libjpeg-turbo/libjpeg-turbo/releases/download/$version/libjpeg-turbo-$version.tar.gz" \
        "https://deb.debian.org/debian/pool/main/libj/libjpeg-turbo/libjpeg-turbo_$version.orig.tar.gz"
    do
        curl --fail --location --silent --show-error --output "$tarball" "$url" && break
    done
fi
echo "$sha256  $tarball" | sha256sum --check --quiet

tar -xzf "$tarball" -C "$work"
cmake -S "$work/libjpeg-turbo-$version" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DENABLE_STATIC=OFF \
    -DWITH_TESTS=OFF -DWITH_TOOLS=OFF -DREQUIRE_SIMD=ON >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
cmake --build "$work/build" --target turbojpeg --parallel "$(nproc)" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }

mkdir -p "$prefix"
cp "$work/build/libturbojpeg.so" "$prefix/libturbojpeg.so.new"
mv "$prefix/libturbojpeg.so.new" "$prefix/libturbojpeg.so"
echo "$prefix/libturbojpeg.so"
