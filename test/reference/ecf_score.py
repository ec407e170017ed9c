"""What the official scorer of ECF (SemEval-2024 Task 3) says of dialogs that are made up here.

    python test/reference/ecf_score.py path/to/evaluate.py [path/to/ecf]

Writes test/fixtures/emotion/ecf-score.json, and ecf-forms.json beside it: ways to write a pair, with the scores or null where
the official scorer gives up. With the folder of the corpus it also prints the scores of its two sample submissions,
which test/kit/emotion/ecf-score.test.ts has as numbers: nothing of the corpus is written.
"""

import json
import os
import random
import subprocess
import sys
import tempfile

EMOTIONS = ["neutral", "anger", "disgust", "fear", "joy", "sadness", "surprise"]
WORDS = "so why are you here again today it was mine , not yours ! really ? oh no ... fine".split()
HERE = os.path.dirname(os.path.abspath(__file__))


def scores(evaluate, subtask, gold, pred):
    with tempfile.TemporaryDirectory() as folder:
        for name, value in (("gold", gold), ("pred", pred)):
            with open(os.path.join(folder, f"Subtask_{subtask}_{name}.json"), "w") as file:
                json.dump(value, file)
        subprocess.run([sys.executable, "-W", "ignore", evaluate], cwd=folder, check=True, stderr=subprocess.DEVNULL)
        lines = open(os.path.join(folder, "scores.txt")).read().split()
    return {key: float(value) for key, value in (line.rsplit(":", 1) for line in lines)}


def dialogs(rng, count, neutral):
    found = []
    for number in range(1, count + 1):
        said = []
        for place in range(1, rng.randint(1, 7) + 1):
            text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 12))) + " indeed ."
            emotion = rng.choice(EMOTIONS[0 if neutral else 1 :])
            said.append({"utterance_ID": place, "text": text, "speaker": rng.choice("AB"), "emotion": emotion})
        found.append({"conversation_ID": number, "conversation": said, "emotion-cause_pairs": []})
    return found


def span_of(rng, text):
    """Words of a text, with punctuation at the ends now and then, never punctuation alone."""
    words = text.split()
    while True:
        start = rng.randrange(len(words))
        end = rng.randint(start + 1, len(words))
        if any(word[0].isalpha() for word in words[start:end]):
            return start, end


def case(rng, subtask, name, count=12, neutral=True, prefix=False):
    gold = dialogs(rng, count, neutral)
    pred = []
    for dialog in gold:
        said = dialog["conversation"]
        guesses = []
        for utterance in said:
            if utterance["emotion"] == "neutral" and rng.random() < 0.9:
                continue
            for _ in range(rng.choice([0, 1, 1, 2, 3])):
                cause = rng.choice(said)
                u = "U" if prefix and rng.random() < 0.5 else ""
                first = f"{u}{utterance['utterance_ID']}_{utterance['emotion']}"
                start, end = span_of(rng, cause["text"])
                words = " ".join(cause["text"].split()[start:end])
                second = f"{cause['utterance_ID']}" if subtask == 2 else f"{u}{cause['utterance_ID']}_{words}"
                dialog["emotion-cause_pairs"].append([first, second])
                # Right; or wrong in one thing; or not there.
                kind = rng.choice(["right", "emotion", "cause", "span", "lost", "twice", "later"])
                effect, emotion, said_by = utterance["utterance_ID"], utterance["emotion"], cause["utterance_ID"]
                if kind == "lost":
                    continue
                if kind == "emotion":
                    emotion = rng.choice(EMOTIONS)
                if kind == "cause":
                    said_by = rng.choice(said)["utterance_ID"]
                if kind == "later":
                    said_by = len(said)
                if kind == "span":
                    start, end = max(0, start + rng.choice([-1, 0, 1])), end + rng.choice([0, 1])
                    end = max(end, start + 1)
                guess = [f"{u}{effect}_{emotion}", f"{said_by}" if subtask == 2 else f"{said_by}_{start}_{end}"]
                guesses += [guess, list(guess)] if kind == "twice" else [guess]
        pred.append({**dialog, "emotion-cause_pairs": guesses})
    # What the gold does not have is not looked at.
    pred.append({"conversation_ID": 999, "conversation": [], "emotion-cause_pairs": [["1_joy", "1"]]})
    rng.shuffle(pred)
    return {"name": name, "subtask": subtask, "gold": gold, "pred": pred}


SAID = [
    {"utterance_ID": 1, "text": "so why are you here ?", "speaker": "A", "emotion": "joy"},
    {"utterance_ID": 2, "text": "it was mine , not yours !", "speaker": "B", "emotion": "anger"},
]
NUMBERS = ["1", " 1 ", "+1", "-1", "1_0", "0_1", "1__0", "_1", "1_", "\uff11", "\u0661", "\U0001d7cf", "\u0967\u0968", "01", 1, 1.0, 1.9]
NUMBERS += [True, False, None, "", "x", "1.0", [1], {}, "\u00a01\u2003", "\ufeff1", "\u001f1", "\u0085" + "1", "1" * 4300, "1" * 4301, 2**40, "\u00b2"]
FIRSTS = ["U1_joy", "1U_joy", "\uff11_joy", "UU1_joy", " 1 _joy", "1_joy_", "1_Joy", "1_joy ", 1, None, "_joy", "1_", ["1_joy"]]
LISTS = [{}, "", None, "ab", {"a": 1}, 0, True, [], [[]], [["1_joy"]], [["1_joy", "1", "more"]], [["1_joy", "1", 5]], [{"0": "1_joy"}], ["1_joy"], [None]]
IDS = ["1", " 1", 1.0, 1.5, True, "\uff11", None, "x", "", [1]]
SPANS = ["1_0_2", "\uff11_\uff10_\uff12", " 1 _ 0_2 ", 1, None, "1_0_2_3", "1_0", "1_-1_2", "1_2_0", "1_0_99", "U1_0_2", "x", ["1", "0", "2"]]


def form(evaluate, subtask, what, value, pairs, id=1):
    """A conversation's prediction, as the value is written, and what the scorer makes of it."""
    truth = [["1_joy", "1_so why"], ["2_anger", "U1_here"]] if subtask == 1 else [["1_joy", "1"], ["2_anger", "10"]]
    gold = [{"conversation_ID": 1, "conversation": SAID, "emotion-cause_pairs": truth}]
    pred = [{"conversation_ID": id, "conversation": SAID, "emotion-cause_pairs": pairs}]
    try:
        found = scores(evaluate, subtask, gold, pred)
    except subprocess.CalledProcessError:
        found = None
    return {"subtask": subtask, "what": f"{what} {json.dumps(value)[:40]}", "gold": gold, "pred": pred, "scores": found}


def forms(evaluate):
    for value in NUMBERS:
        yield form(evaluate, 2, "cause", value, [["1_joy", value]])
    for value in FIRSTS:
        yield form(evaluate, 2, "emotion", value, [[value, "1"]])
        yield form(evaluate, 1, "emotion", value, [[value, "1_0_2"]])
    for value in LISTS:
        yield form(evaluate, 2, "pairs", value, value)
        yield form(evaluate, 1, "pairs", value, value)
    for value in IDS:
        yield form(evaluate, 2, "conversation_ID", value, [["1_joy", "1"]], value)
    for value in SPANS:
        yield form(evaluate, 1, "span", value, [["1_joy", value]])


def main():
    evaluate = os.path.abspath(sys.argv[1])
    rng = random.Random(19)
    cases = []
    for subtask in (1, 2):
        cases.append(case(rng, subtask, "mixed"))
        cases.append(case(rng, subtask, "no neutral, U before numbers", count=5, neutral=False, prefix=True))
        nothing = case(rng, subtask, "nothing predicted", count=4, neutral=False)
        for dialog in nothing["pred"]:
            dialog["emotion-cause_pairs"] = []
        cases.append(nothing)
        perfect = case(rng, subtask, "all right", count=4, neutral=False)
        if subtask == 2:
            perfect["pred"] = json.loads(json.dumps(perfect["gold"]))
            cases.append(perfect)
    for each in cases:
        each["scores"] = scores(evaluate, each["subtask"], each["gold"], each["pred"])
    with open(os.path.join(HERE, "..", "fixtures", "emotion", "ecf-score.json"), "w") as file:
        json.dump(cases, file, separators=(",", ":"))
        file.write("\n")
    with open(os.path.join(HERE, "..", "fixtures", "emotion", "ecf-forms.json"), "w") as file:
        json.dump(list(forms(evaluate)), file, separators=(",", ":"))
        file.write("\n")
    if len(sys.argv) < 3:
        return
    train = json.load(open(os.path.join(sys.argv[2], "Subtask_1_train.json")))
    for subtask in (1, 2):
        pred = json.load(open(os.path.join(sys.argv[2], f"Subtask_{subtask}_pred.json")))
        known = {dialog["conversation_ID"] for dialog in pred}
        gold = [dialog for dialog in train if dialog["conversation_ID"] in known]
        if subtask == 2:
            for dialog in gold:
                dialog["emotion-cause_pairs"] = [[a, b.split("_")[0]] for a, b in dialog["emotion-cause_pairs"]]
        print(subtask, json.dumps(scores(evaluate, subtask, gold, pred), indent=1))


main()
