"""Step ``finetune``: a pretrained encoder, or the champion, learns the new rows."""
