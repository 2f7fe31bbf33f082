"""What every part stands on: errors, time, progress, text. Imports nothing else of the project."""
