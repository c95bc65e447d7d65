"""What a method acts on and what it may spend: adapters, ranks, budgets, random streams."""

import logging

# PEFT imports it where it is installed; it says then which optional kernel it lacks, and later that int8 is cast.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
