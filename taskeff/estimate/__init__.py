"""From CoS-Low and pilot scores to labels needed, with certainty and cost."""
