"""Networks of other frameworks whose arithmetic slim's ResNet v1 can express, under slim's names."""
