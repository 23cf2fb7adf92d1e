"""The store of runs, and the channels that point to them.

Keys of a store, in the order in which a run writes them:

    datasets/<digest>/<file>                a pack's files
    datasets/<digest>/files.json            their sizes and SHA-256; written last
    sources/<digest of the request>.json    the digest of the pack that a source's configuration gave
    runs/<run>/config.json                  the configuration that decides the result, and the versions that ran it
    runs/<run>/status.json                  how a run ended that is not published; deleted when it resumes
    runs/<run>/<step>/<file>                a step's files; steps are `split`, `lr/frozen`, `checkpoints/finetune`, ...
    runs/<run>/<step>/live/                 a running step's last checkpoint; deleted when the step is done
    runs/<run>/<step>/live/live.json        its name, size and SHA-256; written last
    runs/<run>/<step>/step.json             the step's record, and its files with size and SHA-256; written last
    runs/<run>/manifest.json                all files of the run with size and SHA-256; written last
    channels/<name>.json                    a channel: the run it points to, and its last moves
    history/<name>/<count>-<digest>.json    a page of a channel's older moves
    retention/<run>.json                    whether a run is being promoted (kept) or deleted (marked, deleting)
    decisions/<challenger>/<champion>.json  the decision of a comparison
    shards/<digest>.json                    predictions of some patches by some model
    scores/<name>/                          tables of predictions, with a manifest as a run has it

A run with a manifest is published and never changes; only a channel moves, by conditional writes. Tensors are
safetensors or npy, everything else is JSON, parquet, ONNX, text or pictures; a pickle is refused.
"""
