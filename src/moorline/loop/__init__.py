"""What nobody asks for: the owner looks around, and gives turns to what is not as wanted."""
