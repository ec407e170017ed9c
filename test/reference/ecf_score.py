"""What the official scorer of ECF (SemEval-2024 Task 3) says of dialogs that are made up here.

    python test/reference/ecf_score.py path/to/evaluate.py [path/to/ecf]

Writes test/fixtures/emotion/ecf-score.json. With the folder of the corpus it also prints the scores of its two sample submissions,
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
        subprocess.run([sys.executable, "-W", "ignore", evaluate], cwd=folder, check=True)
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
