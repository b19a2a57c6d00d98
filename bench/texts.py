"""Titles and descriptions for a million tasks, Russian and English mixed, by a fixed seed.

Words come as in real texts: a few are everywhere, most are rare (Zipf's law). Beside the common vocabulary each text
has one of many words that are in about ten of a million texts each (`rare`), and may have a word that is in a tenth of
all (`FREQUENT`), and a phrase of three words that is in one of a thousand (`PHRASE`).
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate


def _words(text: str) -> list[str]:
    return text.split()


RUSSIAN = _words(
    """
    задача отчёт проверка сервер клиент заказ договор счёт оплата доставка склад товар письмо встреча план проект
    срок команда сотрудник отдел руководитель решение вопрос ответ ошибка исправление обновление версия система
    данные база таблица запрос индекс поиск документ страница раздел список результат процесс очередь обработка
    сообщение событие подготовить проверить отправить получить создать удалить изменить настроить собрать
    запустить остановить повторить согласовать перенести сравнить посчитать описать добавить закрыть открыть
    важный новый старый большой быстрый срочный общий полный точный последний первый внутренний внешний месячный
    квартальный годовой ноябрь декабрь январь неделя месяц квартал утро вечер понедельник пятница город офис
    магазин телефон адрес картинка видео файл архив копия
    """
)
ENGLISH = _words(
    """
    task report check server client order contract invoice payment delivery stock item letter meeting plan project
    deadline team employee department manager decision question answer error fix update version system data
    database table query index search document page section list result process queue processing message event
    prepare verify send receive create delete change configure collect start stop retry approve move compare count
    describe add close open important new old large fast urgent common complete exact last first internal external
    monthly quarterly yearly november december january week month quarter morning evening monday friday city
    office shop phone address image video file archive copy thumbnail resize compress upload download export
    import render convert transcode
    """
)

FREQUENT = "сверка"
OLD = "ярмарка"
PHRASE = ("ежемесячный", "баланс", "поставщика")
SEED = 2026

_SYLLABLES = _words("ба ве ги до жу за ки ла мо ну пе ри со ту фа хо цы ша ру ме")


def rare(number: int) -> str:
    """Return one of a hundred thousand words that are in about ten texts of a million each."""
    word = "кв"
    for _ in range(5):
        number, rest = divmod(number, len(_SYLLABLES))
        word += _SYLLABLES[rest]
    return word


class Texts:
    """An endless row of titles and descriptions."""

    def __init__(self, seed: int = SEED) -> None:
        self._random = random.Random(seed)
        vocabulary = [*RUSSIAN, *ENGLISH]
        self._random.shuffle(vocabulary)
        self._vocabulary = vocabulary
        self._weights = list(accumulate(1 / (rank + 8) for rank in range(len(vocabulary))))

    def _draw(self, number: int) -> list[str]:
        pick, total = self._random.random, self._weights[-1]
        return [self._vocabulary[bisect(self._weights, pick() * total)] for _ in range(number)]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        while True:
            title = self._draw(self._random.randint(2, 6))
            description = self._draw(self._random.randint(5, 60))
            if self._random.random() < 0.1:
                (title if self._random.random() < 0.3 else description).append(FREQUENT)
            if self._random.random() < 0.001:
                description.extend(PHRASE)
            description.insert(self._random.randrange(len(description)), rare(self._random.randrange(100_000)))
            yield " ".join(title).capitalize(), " ".join(description).capitalize() + "."
