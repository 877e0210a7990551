FROM astrocrpublic.azurecr.io/runtime:3.3-8
# Astro's image installs requirements.txt by itself, and of what that leaves open the newest. This takes what the tests ran with.
RUN pip install --no-cache-dir --require-hashes --requirement requirements-image.lock
