// What needs a script: forms that change something ask once, and are sent as JSON.
"use strict";
