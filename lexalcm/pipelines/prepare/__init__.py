"""From raw documents to sentences and concepts: reading, cutting, encoding, writing, in shards."""
