"""An event for every hook of observers."""

import chipperf

EVENTS = {
    "perf_run_started": chipperf.RunStarted(
        run_id="r",
        directory="runs/r",
        case="resnet50",
        vendor="acme",
        precision="fp32",
        world_size=8,
        hyperparameters={"lr": 0.1},
    ),
    "perf_window_finished": chipperf.WindowFinished(
        run_id="r", step=20, epoch=0, samples=640, seconds=1.5, loss=6.9, learning_rate=0.1
    ),
    "perf_epoch_finished": chipperf.EpochFinished(
        run_id="r",
        epoch=1,
        step=10,
        mean_loss=0.5,
        memory=chipperf.MemoryStats(source="acme runtime", peak_allocated_bytes=2**30),
    ),
    "perf_evaluation_finished": chipperf.EvaluationFinished(run_id="r", epoch=1, step=10, metric="top1", value=0.76),
    "perf_run_finished": chipperf.RunFinished(run_id="r", record_path="runs/r/record.json"),
    "perf_run_failed": chipperf.RunFailed(run_id="r", failure_class="out_of_memory", message="no memory left"),
}
