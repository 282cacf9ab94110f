"""megdt: generative AI split between an edge server and user equipments, over wireless links.

>>> from megdt.scenario import parse_scenario
>>> scenario = parse_scenario({"request": {"prompt": "red poppies"}, "link": {"snr_db": 5}})
>>> scenario.plan.mechanism, scenario.plan.codecs["seed"]
('es_to_ue', 'int8')
"""

__version__ = "0.1.0"
