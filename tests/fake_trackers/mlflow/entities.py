class Metric:
    def __init__(self, key, value, timestamp, step, model_id=None):
        assert isinstance(timestamp, int)
        self.key, self.value, self.timestamp, self.step = key, value, timestamp, step


class Param:
    def __init__(self, key, value):
        assert isinstance(value, str)
        self.key, self.value = key, value
