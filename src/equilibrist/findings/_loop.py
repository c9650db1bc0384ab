"""Words for what is wrong with a loop: wiring, data, numbers, averages, resumption."""

from __future__ import annotations

from equilibrist.findings._kind import Kind

LOOP: dict[str, Kind] = {
    # -- wiring ----------------------------------------------------------------------------------
    "never-stepped": Kind(
        "wiring",
        "a player's loss is logged and does not improve",
        "no optimiser steps the player's weights",
        "call backward on its loss, and step() of the optimiser that holds its weights",
        "no optimiser that steps holds the player's weights, and the weights are the initial ones, bit for "
        "bit",
    ),
    "wrong-optimizer": Kind(
        "wiring",
        "one player never changes, the other changes twice a round",
        "the step that was meant for one player is another optimiser's",
        "call step() of the optimiser that holds the player's weights",
        "the player's gradients arrive, its optimiser rests, and another one steps with a used "
        "gradient or on this player's loss alone",
    ),
    "stepped-twice": Kind(
        "wiring",
        "training is jumpy, as with a learning rate twice as large",
        "the optimiser steps again with a gradient that it has already applied",
        "step once for each backward pass (scaler.step(optimizer) already steps)",
        "no backward pass reached the player between two of its steps, and the gradient is not zero",
    ),
    "stale-gradients": Kind(
        "wiring",
        "losses oscillate more and more",
        "gradients of earlier rounds are still in .grad when the optimiser steps",
        "call zero_grad() before the backward pass of every step",
        "the received gradient is the new one plus 1.00 times the one before, at every step",
    ),
    "gradient-leak": Kind(
        "wiring",
        "the critic is near chance, or training makes little progress",
        "a player's optimiser receives the gradient of the other player's loss as well",
        "clear the player's gradients between the two backward passes, or detach the generated samples",
        "the received gradient is the player's own plus a constant times the other's, taken at the same call",
        "torch.optim.Optimizer.zero_grad",
    ),
    "shared-optimizer": Kind(
        "wiring",
        "one player's settings have no effect, or follow the other's",
        "one optimiser holds both players",
        "give each player an optimiser of its own",
        "one optimiser's steps move both players, and one of them on the other's loss",
    ),
    "no-gradient": Kind(
        "wiring",
        "a player's loss is finite, its weights do not move",
        "the player's loss does not reach its weights: something on the way is detached or under no_grad",
        "compute the loss from the module's own output, without detach() or no_grad",
        "the optimiser steps with a gradient that is None, or zero where the declared one is not",
    ),
    "frozen-part": Kind(
        "wiring",
        "a part of a network stays as it was initialised",
        "some of a player's weights never get a gradient, or no optimiser steps them",
        "set requires_grad, use the layers in forward, and hand all parameters to the optimiser",
        "the layers are called and no backward pass reaches their weights; or one does, and no optimiser holds them, "
        "as those of layers in a plain list, which are no parameters; or an optimiser holds layers that are switched "
        "off and still as PyTorch drew them",
    ),
    "stale-parameters": Kind(
        "wiring",
        "the optimiser steps and the network does not change",
        "the optimiser holds tensors that the module no longer uses",
        "make the optimiser after the module has been moved, copied or replaced",
        "an optimiser steps tensors that are no player's, and nothing steps the player",
    ),
    "missing-term": Kind(
        "wiring",
        "a term of the loss is logged and has no effect",
        "a declared term contributes nothing to the gradient",
        "compute the term with gradients (no detach, no no_grad), and add it to what backward is called on",
        "the coefficient of the term is 0 and those of the others are 1",
    ),
    "wrong-sign": Kind(
        "wiring",
        "a player's loss explodes, or it learns the opposite of its task",
        "a term enters with the opposite sign, or with the other label",
        "correct the term's sign, or its label",
        "the coefficient of the term is -1, or that of the other label's term is 1",
    ),
    "constant-penalty": Kind(
        "wiring",
        "the penalty is logged and grows without limit",
        "the penalty has no gradient: it was computed without create_graph, detached, or never added to the loss",
        "compute the inner gradient with create_graph=True, do not detach it, and add it to the loss",
        "the penalty's points were seen, its coefficient is 0, and the unpenalised loss explains the "
        "gradient to rounding",
        "Gulrajani et al. 2017 (the penalty); torch.autograd.grad, create_graph",
    ),
    "penalty-norm": Kind(
        "wiring",
        "the penalty looks small, the critic's slopes are far from the target",
        "the penalty's norm is taken over the wrong axes",
        "flatten each sample and take one norm for each of them: grad.flatten(1).norm(dim=1)",
        "the penalty with the norm over these axes explains the gradient to rounding, the declared "
        "one does not; slopes then settle at the square root of (entries of a sample over entries "
        "under one norm) times the target",
        "Gulrajani et al. 2017, equation 3",
    ),
    "loss-scale": Kind(
        "wiring",
        "clipping and weight decay do not act as configured",
        "gradients are a loss scale too large (or, as a note, too small) when the optimiser steps",
        "step through the scaler, or call scaler.unscale_(optimizer) first",
        "all coefficients are one large number, a power of two as scalers take them",
        "Micikevicius et al. 2018, section 3.2",
    ),
    "clipping": Kind(
        "wiring",
        "gradients explode although they are clipped",
        "clipping has no effect on what the optimiser receives, or cuts a gradient that is still scaled",
        "clip after backward (and unscaling) and before step, the parameters of this optimiser",
        "torch's clipping is called while no gradient is there, or after the step, or with tensors that no player "
        "uses; or the optimiser receives a small part of the norm to which it was cut",
    ),
    "rate-rewritten": Kind(
        "wiring",
        "a player's learning rate is not what was configured",
        "a rule or a scheduler that was meant for the other player writes the learning rate as well, or a scheduler "
        "overwrites what was written by hand",
        "give the player a parameter group, or an optimiser, that the rule does not touch",
        "both players' rates jump up and down by one factor, or to one value, at the same moments, and no scheduler of "
        "torch holds the optimisers; or a scheduler replaces rates before any step has used them; a rate that only its "
        "own player's rule moves, or a schedule by hand, is none",
    ),
    "bypassed-wrapper": Kind(
        "wiring",
        "ranks drift apart",
        "the forward pass goes through the inner module, so that gradients are not averaged over ranks",
        "call the DistributedDataParallel module itself",
        "the inner module is called with gradients more often than the wrapper",
        "torch.nn.parallel.DistributedDataParallel",
    ),
    "wrong-loss": Kind(
        "wiring",
        "an audit of the declared loss describes another game",
        "the gradients that are received are not those of the declared loss",
        "declare the loss that the loop minimises, or correct the loop",
        "the slopes that the backward pass sends into the critic's scores are those of another loss, "
        "or a function of the score that no sum of the declared terms is",
    ),
    # -- data ------------------------------------------------------------------------------------
    "range-mismatch": Kind(
        "data",
        "the critic wins at once",
        "real and generated samples cannot have the same range",
        "scale the data to what the generator's last layer can make",
        "real samples lie outside of what the generator's last layer can make, or fill half of it",
    ),
    "dtype-mismatch": Kind(
        "data",
        "the critic wins by rounding",
        "real and generated samples reach the critic in different precisions",
        "hand both over in one dtype",
        "the two kinds reach the critic in different dtypes, or one lies on the grid of a half "
        "precision with many values",
    ),
    "normalization-mismatch": Kind(
        "data",
        "the critic wins at once, samples look washed out",
        "one kind of samples is rescaled before it reaches the critic, the other is not",
        "rescale both, or neither",
        "one kind is a scaled and shifted form of the data or of the generator's output, the other is not",
    ),
    "augmentation-mismatch": Kind(
        "data",
        "samples show the augmentation, or the critic wins",
        "one kind of samples is augmented or noised before it reaches the critic, the other is not",
        "apply the same augmentation to real and generated samples",
        "real samples lie farther from the data than held-out ones do (a rank test) and generated "
        "ones are the generator's output, or the reverse",
        "Karras et al. 2020, section 2; Sønderby et al. 2017 (instance noise)",
    ),
    # -- numerics --------------------------------------------------------------------------------
    "batch-of-one": Kind(
        "numerics",
        "NaN at the end of an epoch",
        "a player is not finite, or has no gradient, on a batch of one sample",
        "drop the last batch (drop_last=True), or compute statistics that exist for one sample",
        "the player is run on one sample in training mode, and the first layer whose value is not finite is named; "
        "a fault where such a batch occurs, else a note",
    ),
    "not-finite": Kind(
        "numerics",
        "losses are NaN or infinite",
        "a loss, a gradient or a weight is not finite",
        "find the first tensor named here; lower the learning rate or train in float32",
        "outputs, gradients and weights are looked at in every round; the first that is not finite is named",
    ),
    "step-too-large": Kind(
        "numerics",
        "losses keep oscillating, or explode",
        "the updates are larger than the landscape allows",
        "lower the learning rate",
        "along the player's own step its loss on the same batch falls and rises again: the whole "
        "step gains less than half of what half of it gains (a signed rank test over steps); or "
        "scores explode after steps that are large from the beginning",
        "Cohen et al. 2021 (edge of stability)",
    ),
    # -- averages --------------------------------------------------------------------------------
    "average-buffers": Kind(
        "average",
        "samples of the averaged generator are worse in evaluation mode",
        "the average's batch-norm statistics were never updated",
        "copy the buffers with the average, or update them (torch.optim.swa_utils.update_bn)",
        "no batch was counted in the average's statistics, or they differ and cost distance to real "
        "samples (an interval)",
        "Izmailov et al. 2018, section 3.2",
    ),
    # -- resumption ------------------------------------------------------------------------------
    "weights-not-restored": Kind(
        "resume",
        "training starts over after a resumption",
        "weights or buffers of a player are not restored",
        "save and load the state_dict of every module",
        "right after loading, weights or buffers differ from those that were saved",
    ),
    "moments-not-restored": Kind(
        "resume",
        "a jump after a resumption",
        "the optimiser's moments are not restored",
        "save and load the state_dict of every optimiser",
        "right after loading, the optimiser's state differs; Adam's first update then has one size for all weights",
    ),
    "average-not-restored": Kind(
        "resume",
        "samples get worse after a resumption",
        "the average of the weights is not restored, or is loaded in their place",
        "save the average and the weights apart, and load both",
        "right after loading, the average differs from the saved one, or equals the weights bit for bit",
    ),
    "schedule-not-restored": Kind(
        "resume",
        "the balance changes after a resumption",
        "a learning rate or its schedule goes on from another step",
        "save and load the state_dict of every schedule, each at its own step",
        "rates before and after differ, or a schedule counts from another step",
    ),
    "random-not-restored": Kind(
        "resume",
        "a resumed run differs from an uninterrupted one",
        "random states, or the place in the data, are not restored",
        "save and load the random states and the loader's place",
        "weights agree right after loading, and the first batch or the first noise does not",
    ),
    "state-not-restored": Kind(
        "resume",
        "a resumed run differs from an uninterrupted one",
        "something that the loop keeps between rounds (a loss scale, a mode, a running mean, a pool) is not restored",
        "save and load it beside the modules and optimisers",
        "right after loading, something else that the loop keeps differs",
    ),
    "save-disturbs": Kind(
        "resume",
        "a run that saves differs from one that does not",
        "saving changes weights, buffers or modes of the run that it saves",
        "save from copies, and put back what was swapped in or switched",
        "a run that saves differs from one that does not",
    ),
    "not-repeatable": Kind(
        "resume",
        "two runs from one seed differ",
        "something is not deterministic, or survives from one run to the next",
        "torch.use_deterministic_algorithms(True), loaders without workers, all state created afresh",
        "two uninterrupted runs from one seed differ",
    ),
}
