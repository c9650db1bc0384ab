"""CTGAN, listened to: which columns of a table betray its synthetic rows?

    pip install ctgan
    python examples/listen_ctgan.py
    python examples/listen_ctgan.py --epochs 100

`fit` gives no callback and throws its critic away. Nothing of it is changed here: the model ends with the same
weights, bit for bit, as without the `with` line. For SDV's CTGANSynthesizer the lines are the same.
"""

import argparse

import ctgan
import numpy as np
import pandas as pd
import torch

import equilibrist
from equilibrist.interop.ctgan import audit_table

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--gradients", type=int, default=400, help="what the audit may spend")
args = parser.parse_args()

rng = np.random.default_rng(0)
job = rng.choice(["baker", "nurse", "pilot"], 3000, p=[0.5, 0.3, 0.2])
age = rng.integers(20, 65, 3000)
table = pd.DataFrame(
    {
        "job": job,
        "age": age,
        "remote": rng.choice(["no", "yes"], 3000),
        "income": 1500 + 40 * age + 2500 * (job == "pilot") + rng.normal(0, 200, 3000),
    }
)
train, held_out = table[:2000], table[2000:].reset_index(drop=True)

torch.manual_seed(0)
np.random.seed(0)
model = ctgan.CTGAN(epochs=args.epochs, batch_size=200)
with equilibrist.listen() as heard:
    model.fit(train, ["job", "remote"])

print(heard)
found = audit_table(heard, model, held_out, gradients=args.gradients, progress="none")
print(found)
for column in found.columns:
    print(f"{column['name']}: tells {0.5 + column['effect']:.0%} of pairs by itself")
