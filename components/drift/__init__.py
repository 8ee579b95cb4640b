"""Step ``drift``: has the world moved away from what the champion was trained on?"""
