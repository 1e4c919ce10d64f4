"""What runs the workflow without people: servers, worker, deployments, events, notifications."""
