"""The words of the product: model, errors, events, names and requests. Values alone; nothing here does IO."""
