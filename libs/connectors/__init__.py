"""Commands under the names the runbooks use. The code behind them is in `ingestcore`."""
