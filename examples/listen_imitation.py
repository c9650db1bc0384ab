"""GAIL of `imitation`: does the reward still vary where the learner is?

    pip install imitation
    python examples/listen_imitation.py
    python examples/listen_imitation.py --timesteps 2048

The expert is a rule that balances CartPole; the learner is PPO. What GAIL pays is a function of its critic's
score, so an audit of the critic on held-out transitions says whether the learner can still learn from it.
"""

import argparse

import gymnasium
import numpy as np
import torch
from imitation.algorithms.adversarial.gail import GAIL
from imitation.data import rollout
from imitation.data.wrappers import RolloutInfoWrapper
from imitation.rewards.reward_nets import BasicRewardNet
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from equilibrist.interop.imitation import audit_reward, listening

parser = argparse.ArgumentParser()
parser.add_argument("--timesteps", type=int, default=16384)
parser.add_argument("--gradients", type=int, default=400, help="what the audit may spend")
args = parser.parse_args()

torch.manual_seed(0)
rng = np.random.default_rng(0)
venv = DummyVecEnv([lambda: RolloutInfoWrapper(gymnasium.make("CartPole-v1"))])
venv.seed(0)


def steer(observations, states=None, starts=None):
    return (observations[:, 2] + observations[:, 3] > 0).astype(int), None


def transitions(policy, count):
    until = rollout.make_sample_until(min_timesteps=count)
    return rollout.flatten_trajectories(rollout.rollout(policy, venv, until, rng=rng, unwrap=False))


demonstrations, held_out = transitions(steer, 1000), transitions(steer, 1000)
learner = PPO("MlpPolicy", venv, n_steps=512, batch_size=64, seed=0)
trainer = GAIL(
    demonstrations=demonstrations,
    demo_batch_size=256,
    n_disc_updates_per_round=8,
    venv=venv,
    gen_algo=learner,
    reward_net=BasicRewardNet(venv.observation_space, venv.action_space),
    allow_variable_horizon=True,
)
with listening(trainer) as heard:
    trainer.train(args.timesteps)

print(heard)
made = transitions(learner.policy, 1000)
found = audit_reward(heard, trainer, held_out, made, gradients=args.gradients, progress="none")
print(found)
