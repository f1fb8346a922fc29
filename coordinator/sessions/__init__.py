"""One device's connection: enrolment, downloads, the upload of an update."""
