"""Trains the weights that the classify example serves.

    python3 -m venv env && env/bin/pip install scikit-learn==1.9.1
    env/bin/python train.py

Written: model/weights.json. The split is that of examples/digits, so its held-back pictures are new to these weights.
Data: the digits set bundled with scikit-learn; examples/digits/CARD.md names its source and licence.
"""

import json
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

SEED = 20261122
LEVELS = 16.0
WEIGHTS = Path(__file__).parent / "model/weights.json"

pictures, truth = load_digits(return_X_y=True)
split = train_test_split(pictures / LEVELS, truth, test_size=0.2, stratify=truth, random_state=SEED)
training, held_back, training_truth, held_back_truth = split
model = LogisticRegression(C=0.5, max_iter=2000).fit(training, training_truth)
weights = {
    "levels": LEVELS,
    "weights": [[round(float(value), 4) for value in row] for row in model.coef_],
    "bias": [round(float(value), 4) for value in model.intercept_],
}
WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
WEIGHTS.write_text(json.dumps(weights) + "\n")
print(f"held back: {model.score(held_back, held_back_truth):.4f} of {len(held_back)} pictures")
