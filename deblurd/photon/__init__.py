"""How many electrons is a count, and how many does the light give?"""
