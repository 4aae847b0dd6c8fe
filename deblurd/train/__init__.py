"""The offline trainer (extra ``[train]``): from folders of sharp images to a model folder that the engine loads.

``recipe`` says what, ``dataset`` and ``degrade`` make the examples, ``network`` is what learns, ``fit`` teaches it,
``export`` writes the model folder, ``evaluate`` measures it beside its rivals, ``card`` tells people.
"""
