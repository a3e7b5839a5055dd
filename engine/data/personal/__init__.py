"""Personal data in a text: found here, offline, and masked or replaced for training.

finder (find_personal) asks accounts, addresses, national_ids, networks, people, phones and secrets; presidio adds what
Microsoft's Presidio finds where it is installed. redaction changes rows, pseudonyms makes what stands in their place.
"""
