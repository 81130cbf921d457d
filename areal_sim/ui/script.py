"""What Streamlit runs for every visitor.

The planner's processes import the script that started them; nothing must happen there, hence the
guard, and the late import.
"""

if __name__ == "__main__":
    from areal_sim.ui.page import show

    show()
