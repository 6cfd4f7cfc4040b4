echo same >one; ln one two
