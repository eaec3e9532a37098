"""What clients send: JSON, fields, chats, texts to continue."""
