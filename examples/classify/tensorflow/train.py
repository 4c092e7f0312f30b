"""Trains the network that the TensorFlow variant of the classify example serves.

    kip install -t template.yml && pip install scikit-learn==1.9.1
    PYTHONPATH=$(echo .fun/nas/auto-default/classify/python/lib/python3.*/site-packages) python3 train.py

Written: digits.keras in the project's copy of the share. The split is that of ../train.py.
Data: the digits set bundled with scikit-learn; examples/digits/CARD.md names its source and licence.
"""

from pathlib import Path

import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 20261122
MODEL = Path(__file__).parent / ".fun/nas/auto-default/classify/model/digits.keras"

tf.keras.utils.set_random_seed(SEED)
pictures, truth = load_digits(return_X_y=True)
pictures = (pictures / 16).reshape(-1, 8, 8, 1).astype("float32")
training, held_back, training_truth, held_back_truth = train_test_split(
    pictures, truth, test_size=0.2, stratify=truth, random_state=SEED
)
model = tf.keras.Sequential(
    [
        tf.keras.Input((8, 8, 1)),
        tf.keras.layers.Conv2D(32, 3, activation="relu"),
        tf.keras.layers.Conv2D(64, 3, activation="relu"),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dropout(0.3),
        tf.keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(training, training_truth, epochs=30, batch_size=32, verbose=2)
MODEL.parent.mkdir(parents=True, exist_ok=True)
model.save(MODEL)
print("held back: %.4f of %d pictures" % (model.evaluate(held_back, held_back_truth, verbose=0)[1], len(held_back)))
