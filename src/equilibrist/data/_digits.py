"""The handwritten digits that come with scikit-learn."""

import numpy as np

from equilibrist.data.arrays import ArraySource, check_range


def digits(value_range: tuple[float, float] = (0.0, 1.0)) -> ArraySource:
    """1797 handwritten digits, [1797, 1, 8, 8], with labels; nothing is downloaded.

    Pixels count ink in 17 levels, 0 to 16, and are mapped linearly onto `value_range`.
    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998 (the test part).

    Args:
        value_range: what 0 and 16 become, (low, high).

    Returns:
        The samples, as a source that a recipe takes.

    Raises:
        DataError: a bad value range.

    Examples:
        >>> import equilibrist as eq
        >>> data = eq.digits()
        >>> data.shape, data.size, data.classes
        ((1, 8, 8), 1797, 10)
    """
    low, high = check_range("digits", value_range)
    # Importing scikit-learn takes about a second; other data need not wait for it.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.clip(low + bunch.images / 16 * (high - low), low, high)
    return ArraySource(
        pixels[:, None],
        name="digits",
        origin=(
            "1797 handwritten digits of 8x8 pixels that come with scikit-learn (test part of "
            "Optical Recognition of Handwritten Digits, Alpaydin and Kaynak, 1998)"
        ),
        value_range=(low, high),
        labels=bunch.target,
    )
