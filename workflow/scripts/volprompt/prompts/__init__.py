"""Rule extract_prompts: candidate prompts of every volume, and what a scheme makes of them."""
