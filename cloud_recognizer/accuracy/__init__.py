"""How well expressions are named where nobody says what is right."""
