"""What the page of benchmarks says of rows above their bounds: what a profile showed, and what was tried."""

_PRODUCTS = (
    "a profile (torch.profiler) has 57% of it in matrix products, 12% in the slopes of the ReLUs and 6% in "
    "sums: by operations alone consensus is three simultaneous steps, and six on two minibatches. Tried: "
    "autograd's engine on one thread (1.00 and 1.01 of the time), denormal numbers flushed (0.98 and 1.00); "
    "the whole step compiled is what helps (the table above)"
)
_FOREIGN = (
    "modules that the library does not know are vmapped: a profile has a quarter in batched products and the "
    "rest in vmap's small operations. Tried: autograd's engine on one thread (1.00 of the time), denormal "
    "numbers flushed (1.00)"
)
_OWN = (
    "each player's loss is a call of its own, of modules that carry the players' weights: on networks whose "
    "gradient takes half a millisecond that is a tenth. Losses that share their passes (joint) are 1.02, and "
    "on 2x128 networks it is 1.07 to 1.09. Nothing else was tried"
)
_MEMORY = (
    "with a batch of 16 a gradient is one reading of the weights, and everything that an audit does with "
    "vectors as long as the weights costs as much: of 23 s (6.6 million) passes through the networks take "
    "8.5, orthogonalisation and eigenvectors 5, sums and differences of vectors 4. Tried: huge pages "
    "(THP_MEM_ALLOC_ENABLE: 2.9 of the gradients' time, they get faster as well), memory kept by the "
    "allocator (2.7); bases in float32 and fewer ends, which are in use, took 30.8 million from 350 to 203 s"
)

_HELD = (
    "tensors alive at once are within the bound (32 times the weights, of 6.6 million, where 34 are allowed; 56 of "
    "67, of 3.4 million, its basis counted): the rest is what the allocator keeps between blocks of up to 32 MiB "
    "and what convolutions take inside of their kernels; of small pairs most is batches of samples in float64, "
    "which the bound does not count. Tried: fewer vectors at once (in use: those of self-tests fell from 34 to 17 "
    "times the weights, of the search for lambda* from 37 to 32; 30.8 million went from 1.34 to 1.00), freed memory"
    " handed back between checks (in use), every five gradients (1.07 for 6.6 million in place of 1.23, and a fifth"
    " slower; 1.35 for MNIST, 1.19 for 3.4 million), blocks by mmap (a gradient takes twice as long)"
)

MISSED: dict[str, str] = {
    "Memory of an audit: MNIST DCGAN, dim 16": _HELD,
    "Memory of an audit: DCGAN of 0.2 million": _HELD,
    "Memory of an audit: DCGAN of 3.4 million": _HELD,
    "Memory of an audit: perceptrons of 6.6 million": _HELD,
    "extragradient, 3x128": (
        "by operations two simultaneous steps; a profile has half of it in matrix products and a sixth in the"
        " slopes of the ReLUs. Tried: autograd's engine on one thread (0.92 to 1.0 of the time, within the "
        "noise of a busy machine), denormal numbers flushed (1.04); compiled it is 0.7"
    ),
    "32 seeds, 4x16 MLPs, batch 64, each": (
        "a profile has a third of it in batched products of 64 x 16 matrices, a seventh in reading stacked "
        "parameters out of one buffer and back, the rest in some 200 small operations. Tried: autograd's "
        "engine on one thread (0.98 of the time), denormal numbers flushed (1.00); compiled it is 0.07. "
        "Compiled: a profile has 28% in drawing 65,000 normal numbers a step, 40% in batched products and the"
        " rest in 40 kernels. Tried: products chosen by measurement (max_autotune: 0.067), and Inductor's own"
        " C++ products, which are 2.7 times as fast on these shapes and do not compile in torch 2.13 (an "
        "assertion in its cpp_gemm_template)"
    ),
    "consensus, 3x128": _PRODUCTS,
    "consensus, 2 minibatches, 3x128": _PRODUCTS,
    "consensus, 3x128, zero-sum": _PRODUCTS,
    "8 seeds, 3x128 MLPs, batch 512, each": (
        "a profile has 68% of it in batched products of 512 x 128 matrices, which are no faster than one "
        "network's. Tried: autograd's engine on one thread (0.99 of the time), denormal numbers flushed "
        "(0.99)"
    ),
    "32 seeds, 4x16, foreign, each": _FOREIGN,
    "8 seeds, 3x128, foreign, each": _FOREIGN,
    "16 particles, 4x16 MLPs, batch 64, each": (
        "as the stacks above; autograd's engine on one thread 1.01 of the time, denormal numbers flushed "
        "1.00; compiled it is 0.058"
    ),
    "2x16, 2-d, plain": _OWN,
    "2x16, 2-d, only_what_is_asked": _OWN,
    "perceptrons of 6.6 million": _MEMORY,
    "perceptrons of 30.8 million": _MEMORY,
}
