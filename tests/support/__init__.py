"""What the tests are built from: real servers, real clients, a relay that breaks things, one validator of images."""
