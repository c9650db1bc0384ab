"""What the second-order and proximal claims ask and mean, for readers who have not read the papers."""

from equilibrist.certificates import Words

LAMBDA = (
    "λ (lambda) is the price that the critic pays for moving. At λ = 0 it may answer every move of the "
    "generator with its best response (Stackelberg); at λ = ∞ it may not answer at all (Nash). "
)
LAMBDA_STAR = (
    "λ* (lambda star) is the highest price at which no move of the generator pays: it says how fast the critic "
    "must be allowed to answer. A small λ* means that the pair holds only while the critic keeps up, so "
    "the critic should stay ahead of the generator; a large one, that it holds against a slow critic too; an infinite "
    "one, that the critic need not answer at all. λ has the unit of the loss per squared slope of the critic, so "
    "compare λ* among critics on the same data and the same loss. "
)

SHARE = (
    "A critic's advantage over chance is how much lower its loss is than if real and generated samples were "
    "mixed. A critic near chance has less than a quarter of what the best one that was found has. "
)

MEANINGS = {
    "not-saturated": Words(
        "Is the critic too strong to learn from?",
        "The critic is not saturated: where it separates nearly all pairs, it still has a slope at generated samples",
        "Not saturated",
        "A critic that tells nearly all real samples from generated ones is no fault by itself. It is one where its "
        "reward, or the loss that the generator gets, no longer changes with the sample: then the generator is told "
        "that its samples are bad, and not in which direction they would be better. The slope is measured at every "
        "generated sample, relative to a straight line from the generated samples' reward to the real ones'.",
    ),
    "not-smothered": Words(
        "Does the penalty keep the critic from telling?",
        "The critic is not smothered: its penalty does not hold it near chance",
        "Not smothered",
        SHARE
        + "It is smothered where critics of its class do no better under the same penalty, and much better "
        "without it.",
    ),
    "not-lagging": Words(
        "Has the critic fallen behind?",
        "The critic does not lag: it is not near chance where training it would tell the same samples apart",
        "Not lagging",
        SHARE
        + "It lags where the same critic trained on, or a fresh one of its class, separates the same samples "
        "under the same loss, penalties included.",
    ),
    "not-blind": Words(
        "Does the critic overlook part of the input?",
        "The critic is not blind to a part of the input that tells real from generated samples",
        "Not blind",
        "The score of a critic that answers best holds all that tells real from generated samples: among samples of "
        "one score nothing is left to be told. Each column, or part of an image, is tested for what it still tells "
        "there, all tests corrected for their number. If one tells something and the score does not change when "
        "that part is shuffled among the samples, the critic does not look at it.",
    ),
    "not-memorising": Words(
        "Has the critic learnt its training samples by heart?",
        "The samples that the critic was trained on score as held-out ones of the same law do",
        "Not memorising",
        "A critic that knows its samples by heart scores them as real and others of the same law as generated, so "
        "that a generator is punished for making new ones. The share of pairs in which a training sample scores above "
        "a held-out one is one half where it memorises nothing.",
    ),
    "informative": Words(
        "Does the reward still say anything?",
        "The reward varies where the generated samples are",
        "Reward informative",
        "What a generator is paid at its own samples, and how steeply it changes there, relative to a straight line "
        "between the rewards that the best critic of the class gives to generated and to real samples.",
    ),
    "best-response": Words(
        "Does the critic answer best?",
        "Trained on, the critic gains no more than the tolerance",
        "Training on gains nothing",
        "A copy goes on training on half of the samples; the loss is compared on samples that neither has seen.",
    ),
    "best-of-class": Words(
        "Would a new critic do better?",
        "A fresh critic of the same class gains no more than the tolerance",
        "A fresh critic gains nothing",
        "The same network with new weights is trained on the same samples under the same loss. Where it does better, "
        "the trained critic is stuck or has been left behind.",
    ),
    "penalty-costs-nothing": Words(
        "What does the penalty cost the critic?",
        "Without its penalty a critic of the class gains no more than the tolerance",
        "The penalty costs nothing",
        "The loss without its penalty, of this critic and of one that is trained without it. A cost is no fault: it is "
        "what a penalty is for. It is one where it leaves the critic near chance.",
    ),
    "indistinguishable": Words(
        "Can generated samples be told, and by what?",
        "No critic of the class tells generated samples from real ones",
        "Generated samples cannot be told",
        "The best of the critics that were found, on held-out samples, with the columns that tell by themselves and "
        "the generated samples that give themselves away most.",
    ),
    "self-tests": Words(
        "Can the other verdicts be believed?",
        "The losses are functions of the weights, and the derivatives are theirs",
        "Self-tests of the losses",
        "Before anything is judged, the losses are evaluated twice and their derivatives held against finite "
        "differences. A detached tensor, a random layer or a wrong backward pass would make every verdict below "
        "meaningless without any other sign.",
    ),
    "path-angle": Words(
        "Does the path of training end here?",
        "Along the straight path from where training began, the field comes to rest at this pair",
        "The field turns round at the pair",
        "The cosine of the angle between the players' gradients and the straight line from where training began, at "
        "places before the pair and behind it. Below zero the players are drawn on along the line, above zero back. "
        "Where gradient steps come to rest it passes through zero, from below, at the pair; a bump that keeps its "
        "sign is rotation. It is one line through the space of weights, no proof of stability.",
    ),
    "stable": Words(
        "Does it stay when pushed?",
        "Pushed a little, the players come back to this pair",
        "Comes back when pushed",
        "Both players follow their gradients with tiny steps, from a point close to the pair. Whether they come "
        "back is decided by the eigenvalues of the game's Jacobian: each is a way to move, its real part says "
        "how fast that motion dies out (negative: it grows), its imaginary part how fast the players circle each "
        "other. Circling forces small steps: see the picture of the spectrum. Stable is not the same as an "
        "equilibrium, and an equilibrium need not be stable.",
    ),
    "local-nash/": Words(
        "Does a small move of the {player} gain?",
        "With the {other} frozen, no small move of the {player} lowers its loss",
        "No small move of the {player} gains",
        "At rest the slope of the loss is zero, so its curvature decides: where the loss curves down along some "
        "direction, a small step along it gains. The check looks for the direction that curves down most and says "
        "what a step along it promises. It sees the neighbourhood of the pair only.",
    ),
    "local-nash": Words(
        "Does a small move gain?",
        "A local Nash equilibrium: no player gains by a small move alone",
        "Local Nash equilibrium",
        "A Nash equilibrium among small moves: each player is at a minimum of its own loss while the other "
        "stands still. It falls as soon as one player's side falls.",
    ),
    "local-minimax": Words(
        "Does a small move gain once the critic has answered?",
        "A local minimax point (Stackelberg): after the critic's best answer no small move of the generator gains",
        "Local minimax (Stackelberg)",
        "Here the generator moves first and the critic answers as well as it can: closer to what training does than "
        "a frozen critic. The generator's curvature is corrected by what the critic's answer takes back (a Schur "
        "complement of the Hessian). A pair that fails even this has further to go.",
    ),
    "proximal": Words(
        "How fast must the critic be allowed to answer?",
        "Near the pair no small move of the generator gains at a price λ > 0 of the critic's answers",
        "Proximal near the pair",
        LAMBDA
        + LAMBDA_STAR
        + "This check looks at small moves only, by second derivatives at the pair.",
    ),
    "lambda-search": Words(
        "And for moves of any size?",
        "A proximal equilibrium for some λ, as far as searches from this pair can tell",
        "λ* by search",
        LAMBDA
        + LAMBDA_STAR
        + "This check trains deviating generators against a critic that answers, so "
        "it sees moves of any size, as far as its budget goes.",
    ),
    "profile": Words(
        "What does the generator gain as the critic may answer less and less?",
        "The generator gains nothing at the least λ > 0 that was tried",
        "Equilibrium profile",
        LAMBDA
        + "The profile r(λ) is the generator's gain at each price. It never falls as λ grows: "
        "the less the critic may answer, the more the generator can gain. Where it leaves the tolerance is λ*.",
    ),
    "generator-vs-prox": Words(
        "Does it hold when the generator trains against a critic that answers?",
        "Optimising the generator alone does not lower V_prox, the value with an answering critic",
        "Holds under V_prox",
        "The generator trains on alone, twice from the same weights. Once the critic is frozen: a generator that "
        "finds its blind spots lowers the loss without better samples. Once the critic may answer each step at a price "
        "(V_prox): where the pair is a proximal equilibrium, this value does not fall. It is the experiment of "
        "section 6.1 of Farnia and Ozdaglar (2020).",
    ),
    "duality-gap": Words(
        "What could both players gain, each alone?",
        "The duality gap is zero: neither best response gains",
        "Duality gap",
        "The sum of what the best critic gains against this generator and the best generator against this "
        "critic, on the value V. Zero at a Nash equilibrium and nowhere else. Both responses are searched for, so the "
        "figure is a lower bound.",
    ),
    "proximal-duality-gap": Words(
        "What could both gain if the critic may answer?",
        "The proximal duality gap is zero",
        "Proximal duality gap",
        "As the duality gap, but a deviating generator meets a critic that answers at a price λ. Zero at a "
        "λ-proximal equilibrium and nowhere else.",
    ),
}


def meaning_of(kind: str, player: str) -> Words | None:
    """The words for a claim of this kind, of one player ("": of both); None for a claim not listed here."""
    return MEANINGS.get(f"{kind}/") if player and f"{kind}/" in MEANINGS else MEANINGS.get(kind)
