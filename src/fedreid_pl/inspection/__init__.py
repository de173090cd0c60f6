"""What is behind the scores of a run's last round."""
