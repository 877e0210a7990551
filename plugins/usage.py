"""Registers the package's plugin with Airflow, unless the package is installed and has done so itself."""

from merchant_usage.orchestration.plugin import folder_plugin

UsagePlugin = folder_plugin()
