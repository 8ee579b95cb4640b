"""Step ``collect``: what production saw, through the champion's eyes."""
