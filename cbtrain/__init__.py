"""cbtrain: fine-tune small open-weight models to deliver CBT, and measure whether they got better.

Research software. It is not a medical device and never a substitute for care by a person.
"""

__version__ = "0.1.0"

NOTICE = (
    "Research software: simulated patients, machine scores. Not a medical device, not therapy, "
    "and no evidence that any model here is safe or helpful for a real person."
)
