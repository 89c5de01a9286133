"""One process of the soak: `python -m benchmarks.soak.run DECODE SHARDS SAMPLES`; prints JSON lines."""

import json
import os
import sys
import time
import warnings

import fastload as fl

EVERY = 2000  # samples
BATCH = 64


def make_loader(decode: str, shards: str) -> fl.Loader:
    fields = {
        "image": fl.Image("jpg;png;webp", size=96, crop="random"),
        "label": fl.Int("cls"),
        "caption": fl.Text("txt"),
        "latent": fl.Tensor("latent.npy"),
        "words": fl.Custom("json", lambda content: len(json.loads(content)["words"])),
    }
    augment = fl.Augment(xflip=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1), cutout=(0.5, 0.3), mixup=0.2)
    how = {"augment": augment, "decode": decode, "device": "cpu", "max_bytes": 256 << 20, "ledger": None}
    return fl.Loader(shards, BATCH, fields, max_bad_fraction=0.1, last="partial", **how)


def reading(samples: int, bad_samples: int, begun: float) -> dict:
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return {
        "samples": samples,
        "seconds": round(time.perf_counter() - begun, 1),
        "rss_mib": int(lines["VmRSS"].split()[0]) / 1024,
        "threads": int(lines["Threads"]),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "bad_samples": bad_samples,
    }


def main() -> None:
    decode, shards, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3])
    warnings.simplefilter("ignore")
    begun, samples, epoch, bad_before = time.perf_counter(), 0, 0, 0
    loader, next_reading = make_loader(decode, shards), 0
    while samples < wanted:
        steps = len(loader)
        for step, batch in enumerate(loader):
            samples += len(batch["__key__"])
            if samples >= next_reading:
                bad = bad_before + loader.stats()["bad_samples"]
                print(json.dumps(reading(samples, bad, begun)), flush=True)
                next_reading += EVERY
            if epoch % 5 == 4 and step == steps // 2:
                break
        epoch += 1
        if epoch % 10 == 0:
            bad_before += loader.stats()["bad_samples"]
            loader.close()
            loader = make_loader(decode, shards)
    loader.close()


if __name__ == "__main__":
    main()
