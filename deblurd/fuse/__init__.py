"""What did all the frames that see a place say together?"""
