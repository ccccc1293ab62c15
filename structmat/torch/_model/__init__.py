"""A whole model: layers wrapped, switched, saved; what that costs, and rates that suit it."""
