"""
Trips as OpenTelemetry spans: where the time of a slow phone goes, on both sides in one picture.

Everything here needs the extra ``opentelemetry``; nothing else imports it before it is asked for.
"""
