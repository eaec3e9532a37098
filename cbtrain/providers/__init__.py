"""One model at one API: asked within limits, budget and patience, every paid answer kept."""
