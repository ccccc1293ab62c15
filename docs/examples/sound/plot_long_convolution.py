"""
What does a room do to a sound? Long convolutions in PyTorch
============================================================

Two loudspeakers play, two microphones record, and the delays and echoes on the way are wanted. A convolution layer can
learn them if its kernels are as long as the echoes, which are thousands of samples: ``torch.nn.Conv1d`` is slow with
such kernels, and transforms are not.
"""

# %%
# The room
# --------
# From each loudspeaker to each microphone there are a delay and an echo that decays. The recordings are noisy.

import time

import matplotlib.pyplot as plt
import torch
from torch import nn

from structmat.torch import FFTConv1d, replace_convolutions

torch.manual_seed(0)
length, n = 2048, 16_000
k = torch.arange(length)
room = torch.randn(2, 2, length) * torch.exp(-k / 350)
for to in range(2):
    for start in range(2):
        delay = 60 + 140 * abs(to - start)
        room[to, start, :delay] = 0
        room[to, start, delay] = 6

played = torch.randn(4, 2, n)
recorded = nn.functional.conv1d(played, room.flip(-1), padding=length - 1)[..., :n]
recorded += 2 * torch.randn_like(recorded)

# %%
# A layer that learns it
# ----------------------
# :class:`~structmat.torch.FFTConv1d` takes the place of ``torch.nn.Conv1d``, with the same arguments. The sounds are
# white noise, for which plain gradient descent needs few steps.


def training_step(layer, optimizer):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(layer(played)[..., :n], recorded)
    loss.backward()
    optimizer.step()
    return loss.item()


layer = FFTConv1d(2, 2, length, padding=length - 1, bias=False)
nn.init.zeros_(layer.weight)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.7)
losses = [training_step(layer, optimizer) for _ in range(25)]
learnt = layer.weight.detach().flip(-1)
print(f"relative error of the responses: {(learnt - room).norm() / room.norm():.3f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
axes[0].plot(learnt[0, 1], label="learnt")
axes[0].plot(room[0, 1], linewidth=0.7, label="the room")
axes[0].set(title="from the right loudspeaker to the left microphone", xlabel="sample", xlim=(0, 1500))
axes[0].legend()
axes[1].semilogy(losses)
axes[1].axhline(4, color="gray", linestyle=":", label="the noise")
axes[1].set(title="mean squared error", xlabel="step")
axes[1].legend()
plt.show()

# %%
# How long it takes
# -----------------
# A model that has plain convolutions need not be written again: :func:`~structmat.torch.replace_convolutions` changes
# its layers in place, and an optimizer goes on with the same weights.

model = nn.Sequential(nn.Conv1d(2, 2, length, padding=length - 1, bias=False))
optimizer = torch.optim.SGD(model.parameters(), lr=0.7)


def seconds():
    begun = time.perf_counter()
    training_step(model, optimizer)
    return time.perf_counter() - begun


plain = seconds()
replace_convolutions(model, min_kernel=64)
seconds()
print(f"one step with torch.nn.Conv1d: {plain:.2f} s, with FFTConv1d: {seconds():.3f} s")
