"""One policy, told in the words of whoever is to know it: people, container engines, security modules, service managers.

    WorkerSpec ──▶ survey (asks the machine) ──▶ Policy ──▶ a rendering: text, document, oci, …

A rendering is pure: Policy in, text out. What a format cannot say is refused, and never left out in silence.
"""
