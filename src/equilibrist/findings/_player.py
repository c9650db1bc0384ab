"""Words for what players are like, and for what an audit of a trained pair sees besides."""

from __future__ import annotations

from equilibrist.findings._kind import Kind

PLAYER: dict[str, Kind] = {
    # -- what an audit of a trained pair sees besides --------------------------------------------
    "unbounded-critic": Kind(
        "audit",
        "a Wasserstein critic's loss falls without end",
        "nothing bounds the critic's slope, so that its loss has no least value and measures no distance",
        "add a gradient penalty, weight clipping or spectral norm; if training has one, pass it to the audit",
        "the declared game is Wasserstein's, without penalty, projection, spectral or weight norm",
        "Arjovsky et al. 2017; Gulrajani et al. 2017",
    ),
    "starved-layer": Kind(
        "audit",
        "samples look alike, or flicker between two batches",
        "hardly anything reaches a layer of batch norm, which amplifies what is left",
        "look at what comes before the layer: a latent that is scaled down, or a dead layer",
        "the running variance of the layer's input is within 20 times its eps",
        "Ioffe and Szegedy 2015",
    ),
    "constant-score": Kind(
        "audit",
        "the generator does not move, the critic's loss is a constant",
        "the critic gives every sample the same score",
        "look for dead units, a softmax over one column, or weights at zero; at some equilibria it is right",
        "scores of held-out real and of generated samples are one number, to rounding",
    ),
    "copied-samples": Kind(
        "audit",
        "samples are too good",
        "the generator reproduces rows of the data",
        "more data, a smaller generator, or fewer steps; check that data and generated samples are not mixed up",
        "generated samples coincide with rows of the data to rounding, held-out real ones do not (a share, with an "
        "interval)",
    ),
    "rotation": Kind(
        "audit",
        "losses oscillate and do not settle",
        "near the pair the players rotate around one another faster than they converge",
        "a solver that damps rotation (consensus, extragradient, optimistic), or an average of the iterates",
        "the Jacobian's eigenvalue with the largest ratio of imaginary to real part",
        "Mescheder, Nowozin and Geiger 2017",
    ),
    "uninformative": Kind(
        "audit",
        "the reward does not vary from sample to sample",
        "the critic's reward is flat where the generator's samples are",
        "another function of the score, one that keeps a slope (softplus); or a critic in another state",
        "the share of generated samples at which the reward has no slope, with an interval",
    ),
    # -- players ---------------------------------------------------------------------------------
    "saturated": Kind(
        "player",
        "the critic's loss is near zero, the generator does not move",
        "the critic separates nearly all held-out samples and gives little slope or reward",
        "fewer critic steps, a lower critic rate, a gradient penalty, or a reward that keeps a slope",
        "a critic orders over 98% of held-out pairs throughout the second half, while samples get no nearer, or while "
        "they are far from the data and its weights move ten times as far as the generator's, relative to their size",
        "Arjovsky and Bottou 2017, section 2",
    ),
    "smothered": Kind(
        "player",
        "the critic is near chance and its reward is flat",
        "the critic is held back by its penalty, its weight decay or its rate, although its class could separate",
        "a smaller penalty weight or weight decay, or a larger critic rate",
        "under the penalty no critic of its class has a fortieth of the best one's advantage, and without it one "
        "separates held-out samples; or the critic is at chance throughout and passes on hardly any gradient; or "
        "weight decay takes a fiftieth of its weights or more at every step",
        "Mescheder et al. 2018",
    ),
    "memorising": Kind(
        "player",
        "samples copy the data, or quality falls late",
        "the critic knows its own training samples and calls held-out real ones generated",
        "more data, augmentation of both kinds, or R1 on the critic",
        "its score of its own training samples against that of held-out real ones, with an interval",
        "Karras et al. 2020 (limited data)",
    ),
    "lagging": Kind(
        "player",
        "the critic is at chance in training",
        "the critic lags: a fresh one still separates the samples",
        "more critic steps, a larger critic rate, or newer generated samples in its batches",
        "the critic is at chance throughout, and a fresh one trained on frozen samples separates held-out ones; or its "
        "weights move by less than a fifth of what the generator's do, and samples stay far from the data",
        "Lopez-Paz and Oquab 2017 (classifier two-sample tests)",
    ),
    "blind": Kind(
        "player",
        "a part of the samples never improves",
        "the critic does not see a part of its input that tells the samples apart",
        "check what happens to that part on its way into the critic (left out, masked, scaled down), and pass it in",
        "a part of the input tells samples of one score apart, and permuting it does not move the score; or "
        "conditions can be exchanged among samples without moving it",
    ),
    "collapsed": Kind(
        "player",
        "samples look alike",
        "generated samples vary much less than real ones",
        "a gradient penalty, minibatch statistics in the critic, or more critic steps",
        "distances between generated samples against those between held-out real ones, and the share of real samples' "
        "places that they miss; or samples that lie close together and move all at once, farther than they lie apart",
        "Salimans et al. 2016 (minibatch discrimination)",
    ),
    "latent-ignored": Kind(
        "player",
        "one condition gives one sample",
        "the generator's samples do not depend on its latent",
        "a smaller reconstruction weight, or a term that rewards diversity",
        "the variance over the latent at one condition against the data's own there (the Gamma test), or what a "
        "regression on the condition leaves",
        "Isola et al. 2017; Zhu et al. 2017 (BicycleGAN)",
    ),
    "opposed-terms": Kind(
        "player",
        "reconstruction gets worse once the critic takes part",
        "the adversarial term's gradient works against another term's, or drowns it",
        "a smaller adversarial weight, if the other term matters more",
        "the share of what a step along one term gains that the adversarial term takes back, with an "
        "interval over batches; or its size over the other's, where it is no help to it and samples stay far from the "
        "data",
        "Esser et al. 2021 (the adaptive weight)",
    ),
}
