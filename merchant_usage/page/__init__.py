"""The usage page: queries -> view models -> HTML, rendered on the server. Nothing here knows Airflow."""
